; /// kvmscope
; title = "A hardware task switch: JMP to a TSS descriptor"
; mode = "prot32"
; expect = [
;   "esi == 0x55aa",
;   "cr0.ts == 1",
;   "tr == 0x70",
;   "esp == 0x9000",
;   "u32(0x4000 + 0x20) == back",
;   "debug_exit == 0",
; ]
; [[descriptor]]
; table = "gdt"
; index = 14
; kind = "tss"
; fields = { base = "new_tss", limit = 0x67 }
; ///
;
; A far jump to a TSS selector saves the whole state in the old TSS (EIP at offset 0x20), loads the new one, marks
; it busy, the old one available, and sets CR0.TS. The offset of the far pointer is ignored. SDM vol. 3A, 7.3.

        ljmp    0x70, 0
back:   ud2

task:   xor     eax, eax
        out     0xf4, eax
        hlt

        .balign 16
new_tss:
        .long   0                       ; link
        .fill   6, 4, 0                 ; ESP0 SS0 ESP1 SS1 ESP2 SS2
        .long   0                       ; CR3
        .long   task                    ; EIP
        .long   2                       ; EFLAGS
        .long   0, 0, 0, 0              ; EAX ECX EDX EBX
        .long   0x9000, 0, 0x55aa, 0    ; ESP EBP ESI EDI
        .long   0x10, 0x38, 0x10, 0x10  ; ES CS SS DS
        .long   0x10, 0x10              ; FS GS
        .long   0                       ; LDT
        .word   0, 0x68                 ; T, I/O map base
