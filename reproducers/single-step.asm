; /// kvmscope
; title = "RFLAGS.TF: a guest that single-steps itself"
; mode = "long64"
; expect = [
;   "count('#DB') == 4",
;   "ebx == 4",
;   "r9 & 0x4000 == 0x4000",
;   "debug_exit == 0",
; ]
; [handlers]
; "#DB" = "on_debug"
; ///
;
; POPFQ sets TF; the trap comes after the *next* instruction, and after each one until TF is cleared in the
; saved RFLAGS. DR6.BS tells the handler why. The handler itself runs with TF = 0. SDM vol. 3A, 17.3.1.4.

        xor     ebx, ebx
        pushfq
        or      qword ptr [rsp], 0x100  ; TF
        popfq
        nop
        nop
        nop
        nop                             ; the fourth trap clears TF
        xor     eax, eax
        out     0xf4, eax
        hlt

on_debug:
        mov     r9, dr6
        inc     ebx
        cmp     ebx, 4
        jne     1f
        and     qword ptr [rsp + 16], -257
1:      iretq
