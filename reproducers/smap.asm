; /// kvmscope
; title = "SMAP: ring 0 must not touch user data unless EFLAGS.AC says so"
; mode = "long64"
; expect = [
;   "count('#PF') == 1",
;   "error_code == 0x1",
;   "fault_rip == forbidden",
;   "ebx == 0x5a",
;   "debug_exit == 0",
; ]
; [handlers]
; "#PF" = "on_page_fault"
; [[page]]
; linear = 0x200000
; physical = 0x200000
; flags = "P RW US"
; [[memory]]
; address = 0x200000
; u8 = [0x5a]
; ///
;
; With CR4.SMAP = 1 a supervisor data access to a U/S = 1 page faults unless AC is set; STAC sets it for the
; time of a copy from user space, CLAC clears it. Note the error code: 1, for U/S in it tells who accessed,
; not whose page it is. SDM vol. 3A, 4.6.1.

        mov     rax, cr4
        bts     rax, 21                 ; CR4.SMAP
        mov     cr4, rax
        mov     esi, 0x200000
        stac
        movzx   ebx, byte ptr [rsi]     ; allowed: AC = 1
        clac
forbidden:
        movzx   ecx, byte ptr [rsi]     ; #PF
        ud2

on_page_fault:
        xor     eax, eax
        out     0xf4, eax
        hlt
