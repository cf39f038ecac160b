; /// kvmscope
; title = "A #PF that cannot be delivered becomes #DF, saved by an IST stack"
; mode = "long64"
; expect = [
;   "count('#PF') == 1",
;   "count('#DF') == 1",
;   "exception == '#DF'",
;   "error_code == 0",
;   "rsp == 0x8a000 - 48",
;   "debug_exit == 0",
; ]
; [handlers]
; "#PF" = "on_page_fault"
; "#DF" = { entry = "on_double_fault", ist = 1 }
; ///
;
; RSP points to an address that is not mapped (the boot tables end at 4 GiB). The load faults; pushing the
; frame of that #PF faults again; a page fault during the delivery of a page fault is a double fault. Only a
; stack of its own (IST1, top at 0x8a000) lets the #DF handler run. Without `ist = 1` this is a triple fault:
; try it. SDM vol. 3A, table 6-5 and 6.14.5.

        mov     rsp, 0x7000000000
        mov     rbx, 0x6000000000
        mov     rax, [rbx]              ; #PF -> #PF on the stack -> #DF
        ud2

on_page_fault:
        ud2                             ; never reached

on_double_fault:
        xor     eax, eax                ; RSP: IST1 minus SS RSP RFLAGS CS RIP and the error code
        out     0xf4, eax
        hlt
