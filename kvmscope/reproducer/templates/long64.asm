; /// kvmscope
; title = "64-bit mode, ring 0"
; mode = "long64"
; expect = [
;   "rbx == 42",
;   "debug_exit == 0",
; ]
; ///
;
; Paging is on and maps the first 4 GiB to themselves; the code stands at 0x400000.

start:
        mov     eax, 6
        mov     ecx, 7
        mul     rcx
        mov     rbx, rax

        xor     eax, eax
        out     0xf4, al                ; end the test, status 0
        hlt
