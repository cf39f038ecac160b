; /// kvmscope
; title = "16-bit real mode"
; mode = "real16"
; expect = [
;   "bx == 0x1234",
;   "cs == 0",
;   "debug_exit == 0",
; ]
; ///
;
; CS, DS, ES and SS are 0; the code stands at 0x7c00, the stack grows down from there.

start:
        mov     bx, 0x1200
        or      bl, 0x34

        xor     ax, ax
        out     0xf4, al                ; end the test, status 0
        hlt
