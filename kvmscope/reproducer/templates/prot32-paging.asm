; /// kvmscope
; title = "32-bit protected mode with paging"
; mode = "prot32"
; paging = "32bit"                      # or "pae"
; expect = [
;   "ebx == 0x1234",
;   "p32(0x300000) == 0x1234",
;   "cr0.pg == 1",
;   "debug_exit == 0",
; ]
; [[page]]
; linear = 0x800000
; physical = 0x300000
; flags = "P RW"
; ///
;
; Everything is mapped to itself but for the page declared above.

start:
        mov     dword ptr [0x800000], 0x1234
        mov     ebx, dword ptr [0x300000]

        xor     eax, eax
        out     0xf4, al                ; end the test, status 0
        hlt
