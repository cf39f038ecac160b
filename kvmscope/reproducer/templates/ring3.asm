; /// kvmscope
; title = "Ring 3, and back to ring 0 by an interrupt gate"
; mode = "long64"
; ring = 3
; expect = [
;   "r8 & 3 == 3",
;   "cpl == 0",
;   "debug_exit == 0",
; ]
; [handlers]
; 0x80 = { entry = "on_int80", dpl = 3 }
; ///
;
; Ring 3 owns the program's pages and a stack; everything else belongs to the supervisor.

start:
        int     0x80
        ud2

on_int80:
        mov     r8, [rsp + 8]           ; the caller's CS, RPL 3
        xor     eax, eax
        out     0xf4, al                ; end the test, status 0
        hlt
