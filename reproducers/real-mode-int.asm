; /// kvmscope
; title = "Real mode: INT n through the vector table at address 0"
; mode = "real16"
; expect = ["bx == 0x1234", "sp == 0x7000", "exceptions == 1", "debug_exit == 0"]
; [registers]
; sp = 0x7000
; ///
;
; The interrupt vector table holds 256 far pointers, offset first. INT pushes FLAGS, CS and IP and clears IF; no
; privilege, no error code. The guest installs its own vector 0x21. SDM vol. 3B, 20.1.4.

        xor     ax, ax
        mov     ds, ax
        mov     word ptr [0x84], offset handler
        mov     word ptr [0x86], cs
        int     0x21
        xor     eax, eax
        out     0xf4, eax
        hlt

handler:
        mov     bx, 0x1234
        iret
