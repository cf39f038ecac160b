; /// kvmscope
; title = "A page fault that nobody handles"
; mode = "long64"
; expect = [
;   "exception == '#PF'",
;   "error_code == 0x3",
;   "fault_address == 0x200008",
;   "rip == store",
; ]
; [[page]]
; linear = 0x200000
; physical = 0x200000
; flags = "P"                           # RW: writable; US: for ring 3; NX: not executable; bit51: reserved
; ///
;
; The machine stops before the exception is delivered, at the instruction, and says which entry and which bit
; forbade the access.

start:
        mov     rbx, [0x200008]         ; reading is allowed
store:
        mov     qword ptr [0x200008], 1 ; writing is not
        hlt
