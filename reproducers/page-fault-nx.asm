; /// kvmscope
; title = "Jumping into a page with XD = 1: an instruction-fetch #PF"
; mode = "long64"
; expect = [
;   "exception == '#PF'",
;   "error_code == 0x11",
;   "fault_address == 0x200000",
;   "rip == 0x200000",
;   "count('#PF') == 1",
; ]
; [[page]]
; linear = 0x200000
; physical = 0x200000
; flags = "P RW NX"
; [[memory]]
; address = 0x200000
; hex = "90 f4"
; ///
;
; EFER.NXE is on, so bit 63 of a paging-structure entry forbids fetching. The error code is 0x11: P (present)
; and I/D (the access was an instruction fetch). Nobody handles it, so the machine stops with RIP already at
; the target: the jump itself completed. SDM vol. 3A, 4.6.2 and 4.7.

        mov     eax, 0x200000
        jmp     rax
