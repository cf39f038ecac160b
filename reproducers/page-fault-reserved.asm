; /// kvmscope
; title = "A reserved bit in a PTE: error code 9"
; mode = "long64"
; expect = [
;   "exception == '#PF'",
;   "error_code == 0x9",
;   "fault_address == 0x200123",
;   "rip == load",
; ]
; [[page]]
; linear = 0x200000
; physical = 0x200000
; flags = "P RW bit51"
; ///
;
; Physical-address bits at or above MAXPHYADDR are reserved in every paging-structure entry. Such an entry
; faults on any access with RSVD set. KVM uses exactly this to make MMIO exits cheap on hosts whose
; MAXPHYADDR is below 52, which is why a guest with a larger one than its host is trouble.
; SDM vol. 3A, 4.7; AMD APM vol. 2, 8.2.15.

        mov     ebx, 0x200123
load:   movzx   eax, byte ptr [rbx]
        ud2
