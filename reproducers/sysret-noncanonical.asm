; /// kvmscope
; title = "SYSRET to a non-canonical address: #GP in ring 0 on Intel (CVE-2012-0217)"
; mode = "long64"
; cpu = "intel"
; expect = [
;   "exception == '#GP'",
;   "error_code == 0",
;   "rip == return",
;   "cpl == 0",
;   "rsp == 0x7ffff000",
; ]
; [msrs]
; IA32_STAR = 0x001b000800000000
; ///
;
; On Intel processors SYSRET checks RCX before it leaves ring 0: the #GP is raised with CPL 0, and if the kernel
; had already loaded the user's RSP, its handler would run on a stack of the user's choice. AMD processors
; fault after the switch, in ring 3. SDM vol. 2B, SYSRET; AMD APM vol. 3, SYSRET.

        mov     rcx, 0x0000800000000000
        mov     r11d, 0x2
        mov     rsp, 0x7ffff000         ; "the user's stack"
return: sysretq
