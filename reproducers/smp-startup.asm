; /// kvmscope
; title  = "INIT and start-up IPI: a second processor starts, and both count"
; mode   = "long64"
; smp    = 2
; expect = [
;   "u32(counter) == 200",
;   "u16(selector) == 0x800",
;   "exceptions == 0",
;   "debug_exit == 0",
; ]
; ///
;
; After reset only the bootstrap processor runs; the others wait for a start-up IPI. An INIT IPI resets
; processor 1 and leaves it waiting; a start-up IPI with vector 8 starts it in real mode at 0800:0000, physical
; 0x8000. The second start-up IPI finds it running and is dropped. Watch the header: W waits for the IPI, H is
; halted, ▶ has the turn; `v` looks at the other processor, and `s` then steps that one.
; SDM vol. 3A, 9.4.4 and 11.6.1.

start:  mov     ebx, 0xfee00000                 ; the local APIC (xAPIC mode)
        mov     dword ptr [rbx + 0xf0], 0x1ff   ; SVR: enabled, spurious vector 0xff

        mov     dword ptr [rbx + 0x310], 1 << 24        ; ICR high: to APIC ID 1
        mov     dword ptr [rbx + 0x300], 0x4500         ; ICR low: INIT, assert
        mov     dword ptr [rbx + 0x300], 0x4608         ; start-up, vector 8
        mov     dword ptr [rbx + 0x300], 0x4608         ; twice, as the manual's algorithm has it

        mov     ecx, 100
count:  lock inc dword ptr [counter]
        loop    count
wait:   pause
        cmp     byte ptr [done], 1
        jne     wait
        xor     eax, eax
        out     0xf4, eax
        hlt

        .section .ap, 0x8000
        .code16
started:
        mov     ax, cs
        mov     ds, ax
        mov     [selector - started], ax
        mov     cx, 100
again:  lock inc dword ptr [counter - started]
        loop    again
        mov     byte ptr [done - started], 1
rest:   hlt                                     ; IF = 0: nothing but NMI and INIT can wake it
        jmp     rest

        .balign 4
counter:
        .long   0
selector:
        .word   0
done:   .byte   0
