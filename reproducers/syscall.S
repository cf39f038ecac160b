# /// kvmscope
# title = "SYSCALL and SYSRET: to ring 0 and back without a stack"
# mode = "long64"
# ring = 3
# expect = [
#   "r8 == after_syscall",
#   "r9 & 0x200 == 0",
#   "r10 == 0x8",
#   "r12 == 0x2b",
#   "cpl == 3",
#   "exception == '#GP'",
#   "rip == the_end",
# ]
# [msrs]
# IA32_STAR = 0x001b000800000000
# IA32_LSTAR = 0x400100
# IA32_FMASK = 0x200
# [registers]
# rflags = 0x202
# ///
#
# AT&T syntax, as the kernel writes it. SYSCALL loads CS and SS from IA32_STAR[47:32], puts the return address
# into RCX and RFLAGS into R11, and clears the flags in IA32_FMASK; no stack is involved. SYSRETQ goes back with
# the selectors of STAR[63:48] + 16 and + 8, RPL forced to 3. In the end HLT in ring 3 is #GP(0).
# SDM vol. 3A, 5.8.8.

        syscall
after_syscall:
        mov     %cs, %r12d
the_end:
        hlt

        .org    0x400100
handler:
        mov     %rcx, %r8
        mov     %cs, %r10d
        pushfq
        pop     %r9
        sysretq
