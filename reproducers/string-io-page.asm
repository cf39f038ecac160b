; /// kvmscope
; title = "REP INSB across a page that is not there: what was stored before the fault stays"
; mode = "long64"
; expect = [
;   "exception == '#PF'",
;   "error_code == 0x2",
;   "fault_address == 0x201000",
;   "rip == transfer",
;   "rcx == 2",
;   "rdi == 0x201000",
;   "u32(0x200ffc) == 0xa5a5a5a5",
; ]
; [[page]]
; linear = 0x200000
; physical = 0x200000
; flags = "P RW"
; [[page]]
; linear = 0x201000
; physical = 0x201000
; flags = ""
; ///
;
; Six bytes are read from the test device's latch (0xe0) to the last four bytes of one page and the first two of
; the next, which is not present. String instructions are interruptible between iterations: four are done, the
; registers say so, and the instruction can be restarted. Emulated string I/O is where KVM has had bugs.
; SDM vol. 1, 7.3.9.3 and vol. 2B, REP.

        mov     al, 0xa5
        out     0xe0, al
        mov     edi, 0x200ffc
        mov     ecx, 6
        mov     edx, 0xe0
        cld
transfer:
        rep insb
        ud2
