; /// kvmscope
; title = "A write to a read-only page: #PF, and what CR0.WP has to do with it"
; mode = "long64"
; cpu = "intel"
; expect = [
;   "count('#PF') == 1",
;   "error_code == 0x3",
;   "fault_address == 0x200008",
;   "fault_rip == store",
;   "u64(0x200008) == 0x1122334455667788",
;   "debug_exit == 0",
; ]
; [handlers]
; "#PF" = "on_page_fault"
; [[page]]
; linear = 0x200000
; physical = 0x200000
; flags = "P"
; ///
;
; The page at 0x200000 is present but not writable (R/W = 0 in its PTE). A supervisor may still write to it
; while CR0.WP = 0; with WP = 1 the store faults with error code 3: P (the page was there) and W (a write).
; The handler makes the page writable, drops the stale translation and returns to the same instruction.
; Step to `store`, step once more, and look at the paging panel. SDM vol. 3A, 4.6 and 4.7.

        mov     rbx, 0x1122334455667788
        mov     rdi, 0x200008
store:  mov     [rdi], rbx              ; faults once, is restarted, and succeeds
        xor     eax, eax
        out     0xf4, eax               ; isa-debug-exit: 0 is "pass"
        hlt

; The boot page tables map the first 4 MiB with 4 KiB pages; the walk shows where this PTE lies. Four-level
; paging: take the PML4 from CR3 and go down by hand, as the processor does.
on_page_fault:
        push    rax
        push    rdx
        mov     rax, cr3
        and     rax, -4096
        mov     rax, [rax]              ; PML4E 0
        and     rax, -4096
        mov     rax, [rax]              ; PDPTE 0
        and     rax, -4096
        mov     rax, [rax + 8]          ; PDE 1: 0x200000-0x3fffff
        and     rax, -4096
        or      qword ptr [rax], 2      ; PTE 0 of that table: R/W
        mov     rdx, cr2
        invlpg  [rdx]
        pop     rdx
        pop     rax
        add     rsp, 8                  ; the error code
        iretq
