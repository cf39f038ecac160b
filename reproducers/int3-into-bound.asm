; /// kvmscope
; title = "32-bit traps and faults: INT3, INTO, BOUND, INT n"
; mode = "prot32"
; expect = [
;   "count('#BP') == 1", "count('#OF') == 1", "count('#BR') == 1",
;   "esi == after_int3", "edi == after_into", "ebp == bad_bound",
;   "debug_exit == 0",
; ]
; [handlers]
; "#BP" = "on_bp"
; "#OF" = "on_of"
; "#BR" = "on_br"
; ///
;
; #BP and #OF are traps: the saved EIP is behind the instruction. #BR is a fault: it is the BOUND itself.
; INTO and BOUND do not exist in 64-bit mode. SDM vol. 3A, 6.5 and 6.15.

        int3
after_int3:
        mov     al, 0x7f
        add     al, 1                   ; OF = 1
        into
after_into:
        mov     eax, 11
bad_bound:
        bound   eax, [limits]           ; 11 is not within 0..10
        ud2

limits: .long   0, 10

on_bp:  mov     esi, [esp]
        iretd
on_of:  mov     edi, [esp]
        iretd
on_br:  mov     ebp, [esp]
        xor     eax, eax
        out     0xf4, eax
        hlt
