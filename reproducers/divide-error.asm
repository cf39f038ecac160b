; /// kvmscope
; title = "#DE twice: division by zero, and a quotient that does not fit"
; mode = "long64"
; expect = ["count('#DE') == 2", "r8 == by_zero", "r9 == overflow", "debug_exit == 0"]
; [handlers]
; "#DE" = "on_divide"
; ///
;
; #DE is a fault: the saved RIP is the DIV itself, and neither RAX nor RDX has changed. The second one divides
; 2^64 by 1. The handler steps over the three-byte instruction. SDM vol. 2A, DIV.

        xor     ecx, ecx
        mov     eax, 1
        xor     edx, edx
by_zero:
        div     rcx
        inc     ecx
        mov     edx, 1
overflow:
        div     rcx
        xor     eax, eax
        out     0xf4, eax
        hlt

on_divide:
        mov     r8, r9
        mov     r9, [rsp]
        add     qword ptr [rsp], 3
        iretq
