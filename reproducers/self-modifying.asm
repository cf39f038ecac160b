; /// kvmscope
; title = "Self-modifying code: a store into the very next instruction"
; mode = "long64"
; expect = ["ebx == 0x22", "ecx == 10", "debug_exit == 0"]
; ///
;
; x86 promises that a processor sees its own stores to code at once. The immediate of MOV EBX is rewritten
; just before it executes, ten times, with the loop counter. An emulator that caches translations must notice.
; SDM vol. 3A, 11.6.

        xor     ecx, ecx
again:  inc     ecx
        lea     eax, [rcx + 0x18]
        mov     byte ptr [rip + patched + 1], al
patched:
        mov     ebx, 0
        cmp     ecx, 10
        jne     again

        xor     eax, eax
        out     0xf4, eax
        hlt
