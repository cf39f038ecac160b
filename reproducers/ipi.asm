; /// kvmscope
; title  = "Interrupts between processors: there and back again"
; mode   = "long64"
; smp    = 2
; expect = [
;   "u32(pings) == 3",
;   "ebx == 3",
;   "count(0x41) == 3",
;   "count(0x42) == 3",
;   "exceptions == 6",
;   "debug_exit == 0",
; ]
; [handlers]
; 0x42 = "on_pong"
; [[memory]]
; address = 0x104
; u16 = [0x40, 0x800]
; ///
;
; Processor 0 starts processor 1 and sends it vector 0x41 three times; each time the other one is woken from HLT
; and answers with vector 0x42, which wakes processor 0. Both use x2APIC mode: the whole ICR is one MSR, so
; WRMSR sends an interrupt, and EOI can be written in real mode, where processor 1 stays. Its interrupt table is
; the IVT at 0; [[memory]] puts 0800:0040 behind vector 0x41. SDM vol. 3A, 11.6 and 11.12.

start:  call    enable_x2apic
        mov     edx, 1                          ; to x2APIC ID 1
        mov     ecx, 0x830                      ; ICR
        mov     eax, 0x4500                     ; INIT
        wrmsr
        mov     eax, 0x4608                     ; start-up, vector 8
        wrmsr
wait:   pause
        cmp     byte ptr [ready], 1
        jne     wait

next:   mov     edx, 1
        mov     ecx, 0x830
        mov     eax, 0x4041                     ; fixed, vector 0x41
        wrmsr
        sti
        hlt                                     ; until the answer is there
        cli
        cmp     ebx, 3
        jne     next
        xor     eax, eax
        out     0xf4, eax
        hlt

on_pong:
        inc     ebx
        mov     ecx, 0x80b                      ; EOI
        xor     eax, eax
        xor     edx, edx
        wrmsr
        iretq

enable_x2apic:
        mov     ecx, 0x1b                       ; IA32_APIC_BASE
        rdmsr
        or      eax, 0xc00                      ; EN and EXTD
        wrmsr
        mov     ecx, 0x80f                      ; SVR: enabled, spurious vector 0xff
        mov     eax, 0x1ff
        xor     edx, edx
        wrmsr
        ret

        .section .ap, 0x8000
        .code16
started:
        mov     ax, cs
        mov     ds, ax
        mov     sp, 0x7000                      ; SS is 0
        mov     ecx, 0x1b
        rdmsr
        or      eax, 0xc00
        wrmsr
        mov     ecx, 0x80f
        mov     eax, 0x1ff
        xor     edx, edx
        wrmsr
        mov     byte ptr [ready - started], 1
        sti
rest:   hlt
        jmp     rest

        .org    started + 0x40
on_ping:
        inc     dword ptr [pings - started]
        xor     eax, eax
        xor     edx, edx
        mov     ecx, 0x80b                      ; EOI
        wrmsr
        mov     ecx, 0x830
        mov     eax, 0x4042                     ; fixed, vector 0x42, to x2APIC ID 0
        wrmsr
        iret

        .balign 4
pings:  .long   0
ready:  .byte   0
