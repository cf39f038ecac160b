; /// kvmscope
; title = "From ring 3 through the IDT: RSP0, an IST stack, and the frame on it"
; mode = "long64"
; ring = 3
; expect = [
;   "r8 == 0x88000 - 40",
;   "r9 == 0x8c000 - 40",
;   "r10 == 3",
;   "r11 == after",
;   "debug_exit == 0",
; ]
; [handlers]
; 0x80 = { entry = "on_int80", dpl = 3 }
; 0x81 = { entry = "on_int81", dpl = 3, ist = 2 }
; ///
;
; INT 0x80 goes to ring 0 on the stack that the TSS names (RSP0 = 0x88000). INT 0x81 has IST 2 in its gate and
; lands on 0x8c000, whatever the CPL was. Five quadwords are pushed: SS, RSP, RFLAGS, CS, RIP. DPL = 3 in the
; gate lets ring 3 use INT n on it; with 0 it would be #GP. SDM vol. 3A, 6.12.1 and 6.14.

        int     0x80
        int     0x81
after:  ud2

on_int80:
        mov     r8, rsp
        mov     r10, [rsp + 8]
        and     r10, 3                  ; RPL of the interrupted CS
        iretq
on_int81:
        mov     r9, rsp
        mov     r11, [rsp]              ; return address: behind the INT
        xor     eax, eax
        out     0xf4, eax
        hlt
