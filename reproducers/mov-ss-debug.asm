; /// kvmscope
; title = "MOV SS holds back a #DB: the trap that arrives one instruction late"
; mode = "long64"
; expect = [
;   "count('#DB') == 1",
;   "r8 == late",
;   "r9 & 1 == 1",
;   "ecx == 1",
;   "debug_exit == 0",
; ]
; [handlers]
; "#DB" = "on_debug"
; ///
;
; DR0 watches the doubleword that MOV SS loads its selector from. The data breakpoint triggers, but MOV to SS
; blocks debug exceptions up to the end of the *next* instruction, so the #DB comes with RIP at `late` and
; INC has been executed. With INT3 or SYSCALL in that place this was CVE-2018-8897. SDM vol. 3A, 6.8.3, 17.3.1.1.

        lea     rax, [rip + selector]
        mov     dr0, rax
        mov     eax, 0xf0703            ; R/W0 = 11 (read or write), LEN0 = 11 (4 bytes), L0 G0 LE GE
        mov     dr7, rax
        xor     ecx, ecx
        mov     ss, word ptr [rip + selector]
        inc     ecx                     ; still executed
late:   nop
        ud2

        .balign 4
selector:
        .long   0x10

on_debug:
        mov     r8, [rsp]
        mov     r9, dr6
        xor     eax, eax
        mov     dr7, rax
        out     0xf4, eax
        hlt
