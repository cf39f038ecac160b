; /// kvmscope
; title = "Port I/O: the serial port and the test device"
; mode = "long64"
; expect = [
;   "serial == 'ok\n'",
;   "ebx == 0x12345678",
;   "debug_exit == 0",
; ]
; ///
;
; 0x3f8 is the serial port, 0xe0 the latch of the test device, 0xf4 ends the test. Every access is an event in
; the timeline.

start:
        mov     dx, 0x3f8
        lea     rsi, [rip + text]
        mov     ecx, 3
        rep     outsb

        mov     eax, 0x12345678
        out     0xe0, eax
        xor     eax, eax
        in      eax, 0xe0
        mov     ebx, eax

        xor     eax, eax
        out     0xf4, al                ; end the test, status 0
        hlt

text:   .ascii  "ok\n"
