; /// kvmscope
; title  = "A level-triggered interrupt comes again until its line is lowered"
; mode   = "long64"
; expect = [
;   "count(0x50) == 2",
;   "ebx == 2",
;   "r8d & 0x4000 == 0x4000",
;   "r9d & 0x4000 == 0",
;   "debug_exit == 0",
; ]
; [handlers]
; 0x50 = "on_level"
; ///
;
; Pin 20 of the I/O APIC is level triggered. While its interrupt is in service the redirection entry shows remote
; IRR, and the pin interrupts no more. The local APIC's EOI clears it; a line that is still high then interrupts
; at once. The first visit leaves the line as it is, the second one lowers it before its EOI. (pc-testdev's
; port 0x2000 + n is the line.) 82093AA data sheet, 3.2.4; SDM vol. 3A, 11.8.5.

start:  mov     esi, 0xfee00000                 ; local APIC
        mov     edi, 0xfec00000                 ; I/O APIC: index at 0, data at 0x10
        mov     dword ptr [rsi + 0xf0], 0x1ff   ; SVR: enabled

        mov     dword ptr [rdi], 0x10 + 2 * 20 + 1
        mov     dword ptr [rdi + 0x10], 0       ; to APIC ID 0
        mov     dword ptr [rdi], 0x10 + 2 * 20
        mov     dword ptr [rdi + 0x10], 0x8050  ; fixed, vector 0x50, level, not masked

        mov     edx, 0x2000 + 20
        mov     al, 1
        out     dx, al                          ; the line goes high
        sti
        nop                                     ; the first one comes behind STI's shadow
        cli
        mov     r9d, [rdi + 0x10]               ; the entry again: remote IRR is clear
        xor     eax, eax
        out     0xf4, eax
        hlt

on_level:
        inc     ebx
        mov     r8d, [rdi + 0x10]               ; the entry: remote IRR is set
        cmp     ebx, 1
        je      1f
        xor     eax, eax
        out     dx, al                          ; the line goes low
1:      mov     dword ptr [rsi + 0xb0], 0       ; EOI, broadcast to the I/O APIC
        iretq
