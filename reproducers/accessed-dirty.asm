; /// kvmscope
; title = "Accessed and dirty flags: set by the page walk, never cleared by it"
; mode = "long64"
; expect = [
;   "r8 & 0x60 == 0",
;   "r9 & 0x60 == 0x20",
;   "r10 & 0x60 == 0x60",
;   "debug_exit == 0",
; ]
; [[page]]
; linear = 0x200000
; physical = 0x200000
; flags = "P RW"
; ///
;
; R8, R9 and R10 hold the PTE of 0x200000 before any access, after a read (A) and after a write (A and D). The
; paging panel shows the two bits appear as you step. SDM vol. 3A, 4.8.

        mov     rax, cr3
        and     rax, -4096
        mov     rax, [rax]
        and     rax, -4096
        mov     rax, [rax]
        and     rax, -4096
        mov     rax, [rax + 8]
        and     rax, -4096              ; RAX: the page table of 0x200000
        mov     ebx, 0x200000

        mov     r8, [rax]               ; untouched
        mov     ecx, [rbx]
        mov     r9, [rax]               ; A
        mov     [rbx], ecx
        mov     r10, [rax]              ; A and D

        xor     eax, eax
        out     0xf4, eax
        hlt
