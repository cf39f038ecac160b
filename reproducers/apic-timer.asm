; /// kvmscope
; title  = "A one-shot APIC timer wakes HLT"
; mode   = "long64"
; expect = [
;   "count(0x40) == 1",
;   "r8 >= 1000000",
;   "r9d == 0",
;   "r10d == woken",
;   "debug_exit == 0",
; ]
; [handlers]
; 0x40 = "on_timer"
; ///
;
; The timer counts 1,000,000 ticks of its 1 GHz clock down to zero and interrupts; nothing else happens
; meanwhile, so guest time passes at once: the status line says how much. The interrupt is taken behind HLT, with
; RFLAGS.IF = 1: the instruction after STI runs first (its shadow), so no interrupt can come between STI and HLT.
; SDM vol. 3A, 11.5.4; vol. 2B, STI.

start:  mov     esi, 0xfee00000
        mov     dword ptr [rsi + 0xf0], 0x1ff           ; SVR: the local APIC enabled
        mov     dword ptr [rsi + 0x320], 0x40           ; LVT timer: one-shot, vector 0x40
        mov     dword ptr [rsi + 0x3e0], 0xb            ; divide by 1
        rdtsc
        shl     rdx, 32
        lea     r8, [rax + rdx]
        mov     dword ptr [rsi + 0x380], 1000000        ; initial count: starts it
        sti
        hlt
woken:  cli
        rdtsc
        shl     rdx, 32
        add     rax, rdx
        sub     rax, r8
        mov     r8, rax                                 ; the TSC passed by as much
        mov     r9d, [rsi + 0x390]                      ; current count: it stays at zero
        xor     eax, eax
        out     0xf4, eax
        hlt

on_timer:
        mov     r10d, [rsp]                             ; where it came: behind HLT
        mov     dword ptr [rsi + 0xb0], 0               ; EOI
        iretq
