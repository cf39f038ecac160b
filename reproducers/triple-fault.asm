; /// kvmscope
; title = "The chain to shutdown: #UD, #GP, #DF, and no IDT at all"
; mode = "long64"
; expect = [
;   "stop == 'triple-fault'",
;   "rip == bang",
;   "count('#UD') == 1",
;   "count('#DF') == 1",
; ]
; ///
;
; The IDT's limit is 0, so no vector can be delivered: UD2 raises #UD, reading its gate is beyond the limit
; (#GP with the IDT bit in the error code), a #GP while delivering #UD is delivered in turn, fails the same way,
; and that is a double fault; its failure is shutdown. A hypervisor sees a triple-fault exit and nothing else;
; the explanation shows each link. SDM vol. 3A, 6.15 (interrupt 8).

        lidt    [rip + no_idt]
bang:   ud2

no_idt: .word   0
        .quad   0
