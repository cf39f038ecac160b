; /// kvmscope
; title = "Ring 3 reads a supervisor page: #PF with U/S in the error code"
; mode = "long64"
; ring = 3
; expect = [
;   "exception == '#PF'",
;   "error_code == 0x5",
;   "fault_address == 0x1000",
;   "rip == load",
;   "cpl == 3",
; ]
; ///
;
; Boot gives a ring 3 guest its own code and stack pages with U/S = 1 and leaves everything else to the
; supervisor, the GDT at 0x1000 included. Error code 5: P (a rights violation, not a missing page) and
; U (CPL was 3). SDM vol. 3A, 4.6.1.

        mov     ebx, 0x1000
load:   mov     rax, [rbx]
        ud2
