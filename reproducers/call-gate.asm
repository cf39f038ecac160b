; /// kvmscope
; title = "A far call through a call gate: ring 3 to ring 0, with parameters copied"
; mode = "prot32"
; ring = 3
; expect = [
;   "ebx == 0x1111",
;   "ecx == 0x2222",
;   "edx & 3 == 0",
;   "esi & 3 == 3",
;   "debug_exit == 0",
; ]
; [[descriptor]]
; table = "gdt"
; index = 14
; kind = "call-gate"
; fields = { selector = 0x38, offset = "service", dpl = 3, count = 2 }
; ///
;
; The gate at 0x70 (DPL 3) leads to ring 0 code. The processor switches to the stack of the TSS, pushes the
; caller's SS and ESP, copies two doublewords of parameters, and pushes CS and EIP. The offset in the far pointer
; is ignored. SDM vol. 3A, 5.8.3 to 5.8.5.

        push    0x2222
        push    0x1111
        lcall   0x73, 0
        ud2

service:
        mov     ebx, [esp + 8]          ; EIP, CS, then the parameters
        mov     ecx, [esp + 12]
        mov     edx, cs
        mov     esi, [esp + 4]          ; the caller's CS: RPL 3
        xor     eax, eax
        out     0xf4, eax
        hlt
