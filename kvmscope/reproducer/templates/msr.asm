; /// kvmscope
; title = "RDMSR and WRMSR, and a WRMSR that must fail"
; mode = "long64"
; expect = [
;   "msr(IA32_LSTAR) == 0xffff800012345678",
;   "exception == '#GP'",
;   "error_code == 0",
;   "rip == bad",
; ]
; ///
;
; IA32_LSTAR (0xc0000082) takes canonical addresses only.

start:
        mov     ecx, 0xc0000082
        mov     edx, 0xffff8000
        mov     eax, 0x12345678
        wrmsr
        rdmsr

        mov     edx, 0x01000000         ; bit 56 without bits 63:57
bad:    wrmsr
        hlt
