; /// kvmscope
; title = "Port I/O from ring 3: IOPL, and the I/O permission bitmap of the TSS"
; mode = "long64"
; ring = 3
; io_permission = [[0xe0, 0xe1]]
; expect = [
;   "exception == '#GP'",
;   "error_code == 0",
;   "rip == wide",
;   "al == 0x3c",
;   "cpl == 3",
; ]
; ///
;
; CPL 3 is above IOPL 0, so each port is looked up in the bitmap: the bits of 0xe0 and 0xe1 are clear, and byte
; and word accesses pass. A doubleword access needs four clear bits; those of 0xe2 and 0xe3 are set: #GP(0).
; SDM vol. 1, 19.5.2.

        mov     al, 0x3c
        out     0xe0, al
        xor     eax, eax
        in      al, 0xe0
        in      ax, 0xe0
        and     eax, 0xff
wide:   in      eax, 0xe0
        ud2
