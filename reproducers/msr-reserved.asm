; /// kvmscope
; title = "WRMSR: unknown MSRs, reserved bits and non-canonical addresses all raise #GP(0)"
; mode = "long64"
; expect = [
;   "count('#GP') == 3",
;   "error_code == 0",
;   "ebx == 3",
;   "efer & 0x2 == 0",
;   "debug_exit == 0",
; ]
; [handlers]
; "#GP" = "on_gp"
; ///
;
; Three writes that must fail, each without any effect: an MSR that does not exist, EFER with reserved bit 1
; set, LSTAR with an address that is not canonical. (A processor with LA57 checks 57 bits here, whatever CR4.LA57
; says.) The handler steps over the two-byte WRMSR.
; SDM vol. 2D, WRMSR; vol. 4.

        xor     ebx, ebx
        mov     ecx, 0x12345            ; no such MSR
        xor     eax, eax
        xor     edx, edx
        wrmsr
        mov     ecx, 0xc0000080         ; IA32_EFER
        rdmsr
        or      eax, 2                  ; reserved
        wrmsr
        mov     ecx, 0xc0000082         ; IA32_LSTAR
        xor     eax, eax
        mov     edx, 0x01000000         ; 0x01000000_00000000: not canonical with 48 bits, nor with 57
        wrmsr
        xor     eax, eax
        out     0xf4, eax
        hlt

on_gp:  inc     ebx
        add     qword ptr [rsp + 8], 2
        add     rsp, 8
        iretq
