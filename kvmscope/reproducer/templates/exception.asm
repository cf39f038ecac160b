; /// kvmscope
; title = "An exception, caught by a handler"
; mode = "long64"
; expect = [
;   "count('#UD') == 1",
;   "r8 == bad",
;   "debug_exit == 0",
; ]
; [handlers]
; "#UD" = "on_ud"
; ///
;
; A handler declared above stands in the boot IDT. Without it the machine stops at the instruction and explains
; the exception. #GP, #PF and others push an error code, which the handler removes before IRETQ.

start:
bad:    ud2

after:
        xor     eax, eax
        out     0xf4, al                ; end the test, status 0
        hlt

on_ud:
        mov     r8, [rsp]               ; the saved RIP: a fault points at the instruction itself
        add     qword ptr [rsp], 2      ; step over UD2
        iretq
