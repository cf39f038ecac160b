; /// kvmscope
; title = "Segment loads that fail: the selector in the error code of #GP, #NP and #SS"
; mode = "long64"
; expect = [
;   "count('#GP') == 2", "count('#NP') == 1", "count('#SS') == 1",
;   "r8 == 0x1f8", "r9 == 0x08", "r10 == 0x70", "r12 == 0x70",
;   "debug_exit == 0",
; ]
; [handlers]
; "#GP" = "on_fault"
; "#NP" = "on_fault"
; "#SS" = "on_fault"
; [[descriptor]]
; table = "gdt"
; index = 14
; value = 0x00cf1300_0000ffff
; ///
;
; DS from beyond the GDT's limit: #GP. SS from a code segment: #GP. DS from a writable data segment whose P bit
; is clear (0x70): #NP. SS from the same: #SS. Each time the error code is the selector with RPL masked out.
; All four instructions are two bytes long. SDM vol. 2B, MOV; vol. 3A, 6.13.

        mov     eax, 0x1f8
        mov     ds, eax
        mov     r8, r15
        mov     eax, 0x08
        mov     ss, eax
        mov     r9, r15
        mov     eax, 0x70
        mov     ds, eax
        mov     r10, r15
        mov     ss, eax
        mov     r12, r15
        xor     eax, eax
        out     0xf4, eax
        hlt

on_fault:
        pop     r15                     ; the error code
        add     qword ptr [rsp], 2
        iretq
