; /// kvmscope
; title = "32-bit protected mode, ring 0, no paging"
; mode = "prot32"
; expect = [
;   "ebx == 42",
;   "mode == 32",
;   "debug_exit == 0",
; ]
; ///
;
; Flat segments, paging off; the code stands at 0x400000.

start:
        mov     eax, 6
        imul    ebx, eax, 7

        xor     eax, eax
        out     0xf4, al                ; end the test, status 0
        hlt
