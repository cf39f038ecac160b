; /// kvmscope
; title = "#NM: lazy FPU switching with CR0.TS"
; mode = "long64"
; expect = ["count('#NM') == 1", "r8 == first_use", "cr0.ts == 0", "xmm0 == xmm1", "debug_exit == 0"]
; [handlers]
; "#NM" = "on_nm"
; ///
;
; With CR0.TS = 1 the first SSE instruction faults; the handler clears TS and the instruction is restarted.
; SDM vol. 3A, 2.5 and 6.15 (interrupt 7).

        mov     rax, cr0
        or      eax, 8                  ; TS
        mov     cr0, rax
first_use:
        pxor    xmm0, xmm0
        pxor    xmm1, xmm1
        xor     eax, eax
        out     0xf4, eax
        hlt

on_nm:  mov     r8, [rsp]
        clts
        iretq
