; /// kvmscope
; title = "From real mode to 64-bit mode in one file"
; mode = "real16"
; expect = ["mode == 64", "r15 == 0xfeedfacecafebeef", "efer & 0x500 == 0x500", "cr0 & 0x80000001 == 0x80000001", "debug_exit == 0"]
; ///
;
; The shortest honest way: a GDT, CR0.PE and a far jump into 32-bit code; page tables that map the first 2 MiB,
; CR4.PAE, EFER.LME, CR0.PG; a far jump into a code segment with L = 1. SDM vol. 3A, 9.8.5 and 9.9.

        .code16
        cli
        xor     ax, ax
        mov     ds, ax
        lgdt    [gdtr]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        ljmp    0x08, offset protected

        .code32
protected:
        mov     ax, 0x10
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     dword ptr [0x20000], 0x21003    ; PML4E 0 -> PDPT
        mov     dword ptr [0x21000], 0x22003    ; PDPTE 0 -> PD
        mov     dword ptr [0x22000], 0x00083    ; PDE 0: 2 MiB page at 0
        mov     eax, 0x20000
        mov     cr3, eax
        mov     eax, cr4
        or      eax, 0x20                       ; PAE
        mov     cr4, eax
        mov     ecx, 0xc0000080
        rdmsr
        or      eax, 0x100                      ; LME
        wrmsr
        mov     eax, cr0
        or      eax, 0x80000000                 ; PG: LMA follows
        mov     cr0, eax
        ljmp    0x18, offset long_mode

        .code64
long_mode:
        movabs  r15, 0xfeedfacecafebeef
        xor     eax, eax
        out     0xf4, eax
        hlt

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff              ; 0x08 code, 32-bit
        .quad   0x00cf93000000ffff              ; 0x10 data
        .quad   0x00af9b000000ffff              ; 0x18 code, 64-bit
gdtr:   .word   31
        .long   gdt
