; /// kvmscope
; title  = "NMIs wait for IRET, and only one of them does"
; mode   = "long64"
; expect = [
;   "count('NMI') == 2",
;   "ebx == 2",
;   "r8d == 1",
;   "r9d == again",
;   "debug_exit == 0",
; ]
; [handlers]
; "NMI" = "on_nmi"
; ///
;
; A processor sends itself NMIs. RFLAGS.IF does not matter to them; but from the delivery of one to the next IRET
; further ones are held off. Two are sent from within the handler: one is remembered, the other is lost. The
; IRET that ends the handler lets it in, before the next instruction: `again` is where both of them return to.
; SDM vol. 3A, 6.7.1.

start:  mov     esi, 0xfee00000
        mov     dword ptr [rsi + 0x310], 0              ; ICR high: APIC ID 0, itself
        mov     dword ptr [rsi + 0x300], 0x4400         ; ICR low: NMI
again:  xor     eax, eax
        out     0xf4, eax
        hlt

on_nmi:
        inc     ebx
        mov     r9d, [rsp]
        cmp     ebx, 1
        jne     1f
        mov     dword ptr [rsi + 0x300], 0x4400
        mov     dword ptr [rsi + 0x300], 0x4400
        nop
        mov     r8d, ebx                                ; still 1: neither has come in here
1:      iretq
