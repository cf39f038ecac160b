; /// kvmscope
; title = "MOV to CR0 and CR4: reserved bits and impossible combinations"
; mode = "long64"
; expect = [
;   "count('#GP') == 4",
;   "ebx == 4",
;   "cr4 == r12",
;   "cr0 == r13",
;   "debug_exit == 0",
; ]
; [handlers]
; "#GP" = "on_gp"
; ///
;
; In order: CR4 bit 63 (reserved), CR4.PAE cleared in IA-32e mode, CR0.PG without PE, CR0.NW without CD. Each is
; #GP(0) and changes nothing. The handler steps over the three-byte MOV. SDM vol. 3A, 2.5 and vol. 2B, MOV (control registers).

        xor     ebx, ebx
        mov     r12, cr4
        mov     r13, cr0

        mov     rax, r12
        bts     rax, 63
        mov     cr4, rax
        mov     rax, r12
        btr     rax, 5                  ; PAE
        mov     cr4, rax
        mov     rax, r13
        btr     rax, 0                  ; PE, PG stays
        mov     cr0, rax
        mov     rax, r13
        btr     rax, 30                 ; CD
        bts     rax, 29                 ; NW
        mov     cr0, rax

        xor     eax, eax
        out     0xf4, eax
        hlt

on_gp:  inc     ebx
        add     qword ptr [rsp + 8], 3
        add     rsp, 8
        iretq
