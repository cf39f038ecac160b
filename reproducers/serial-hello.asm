; /// kvmscope
; title = "The smallest test: print a line, exit with a status"
; mode = "long64"
; expect = ["serial == 'PASS: hello\n'", "debug_exit == 0"]
; ///
;
; The UART at 0x3f8 and the debug-exit port at 0xf4 are all that a kvm-unit-tests guest needs to report. LSR
; bit 5 (THRE) is polled before each byte, as a driver would.

        lea     rsi, [rip + text]
        cld
next:   lodsb
        test    al, al
        jz      done
        mov     bl, al
        mov     edx, 0x3fd
poll:   in      al, dx
        test    al, 0x20
        jz      poll
        mov     al, bl
        mov     edx, 0x3f8
        out     dx, al
        jmp     next
done:   xor     eax, eax
        out     0xf4, eax
        hlt

text:   .asciz  "PASS: hello\n"
