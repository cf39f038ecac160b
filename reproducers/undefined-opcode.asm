; /// kvmscope
; title = "#UD, and KVM's forced emulation prefix seen from a guest"
; mode = "long64"
; expect = ["count('#UD') == 2", "r8 == plain", "r9 == prefixed", "debug_exit == 0"]
; [handlers]
; "#UD" = "on_ud"
; ///
;
; UD2 is guaranteed to be undefined. KVM can be told (kvm.force_emulation_prefix=1) to take UD2 followed by
; the bytes "kvm" as a prefix that sends the next instruction through its emulator. Everywhere else, here too,
; it is an ordinary #UD, which is how kvm-unit-tests find out. The handler steps over UD2 and, if it is there,
; the word and the instruction.

plain:  ud2
prefixed:
        ud2
        .ascii  "kvm"
        mov     eax, 1                  ; five bytes
        xor     eax, eax
        out     0xf4, eax
        hlt

on_ud:  mov     r8, r9
        mov     r9, [rsp]
        add     qword ptr [rsp], 2
        mov     rax, [rsp]
        cmp     word ptr [rax], 0x766b  ; "kv"
        jne     1f
        add     qword ptr [rsp], 8
1:      iretq
