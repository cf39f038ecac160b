; /// kvmscope
; title = "SMEP: ring 0 must not fetch from a user page"
; mode = "long64"
; expect = [
;   "exception == '#PF'",
;   "error_code == 0x11",
;   "rip == 0x200000",
;   "cpl == 0",
;   "cr4.smep == 1",
;   "ebx == 1",
; ]
; [[page]]
; linear = 0x200000
; physical = 0x200000
; flags = "P RW US"
; [[memory]]
; address = 0x200000
; hex = "ff c3 c3"
; ///
;
; The same call is made twice: first with CR4.SMEP = 0, where it runs (inc ebx; ret), then with SMEP = 1, where
; the fetch faults although the page is executable. SDM vol. 3A, 4.6.1.

        xor     ebx, ebx
        mov     edi, 0x200000
        call    rdi
        mov     rax, cr4
        bts     rax, 20                 ; CR4.SMEP
        mov     cr4, rax
        call    rdi                     ; #PF, I/D and P
        ud2
