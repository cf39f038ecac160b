"""Declarations of the kvm-unit-tests API that exported tests use, enough to compile one without a tree."""

HEADERS = {
    "libcflat.h": """
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long long u64;
typedef unsigned long ulong; typedef unsigned long size_t; typedef u64 phys_addr_t; typedef _Bool bool;
#define NULL ((void *)0)
#define BIT(n) (1ul << (n))
#define BIT_ULL(n) (1ull << (n))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define PRINTF(n) __attribute__((format(printf, n, n + 1)))
void report(bool pass, const char *fmt, ...) PRINTF(2);
void report_xfail(bool xfail, bool pass, const char *fmt, ...) PRINTF(3);
void report_kfail(bool kfail, bool pass, const char *fmt, ...) PRINTF(3);
void report_skip(const char *fmt, ...) PRINTF(1);
void report_info(const char *fmt, ...) PRINTF(1);
void report_abort(const char *fmt, ...) PRINTF(1);
int report_summary(void);
void *memset(void *s, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);
""",
    "desc.h": """
#define KERNEL_CS 8
#define KERNEL_DS 16
struct ex_regs {
	unsigned long rax, rcx, rdx, rbx, dummy, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
	unsigned long vector, error_code, rip, cs, rflags, rsp, ss;
};
typedef void (*handler)(struct ex_regs *regs);
typedef struct __attribute__((packed)) {
	u32 res1; u64 rsp0, rsp1, rsp2, res2, ist1, ist2, ist3, ist4, ist5, ist6, ist7, res3; u16 res4, iomap_base;
} tss64_t;
typedef struct {
	u16 offset0, selector; u16 ist : 3, : 5, type : 4, : 1, dpl : 2, p : 1; u16 offset1; u32 offset2, reserved;
} idt_entry_t;
typedef struct { u64 raw; } gdt_entry_t;
struct descriptor_table_ptr { u16 limit; ulong base; } __attribute__((packed));
extern idt_entry_t boot_idt[256];
extern gdt_entry_t gdt[];
extern tss64_t tss[];
void set_idt_entry(int vec, void *addr, int dpl);
void set_idt_dpl(int vec, u16 dpl);
void set_desc_entry(idt_entry_t *e, size_t size, void *addr, u16 sel, u16 type, u16 dpl);
void set_gdt_entry(int sel, unsigned long base, u32 limit, u8 access, u8 gran);
handler handle_exception(u8 v, handler fn);
const char *exception_mnemonic(int vector);
""",
    "msr.h": """
#define MSR_EFER 0xc0000080
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_SYSCALL_MASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define EFER_SCE 1
#define EFER_LME 0x100
#define EFER_LMA 0x400
#define EFER_NX 0x800
""",
    "processor.h": """
enum { DE_VECTOR, DB_VECTOR, NMI_VECTOR, BP_VECTOR, OF_VECTOR, BR_VECTOR, UD_VECTOR, NM_VECTOR, DF_VECTOR, TS_VECTOR = 10,
       NP_VECTOR, SS_VECTOR, GP_VECTOR, PF_VECTOR, MF_VECTOR = 16, AC_VECTOR, MC_VECTOR, XM_VECTOR, CP_VECTOR = 21 };
enum { X86_CR0_PE = 1, X86_CR0_MP = 2, X86_CR0_ET = 16, X86_CR0_NE = 32, X86_CR0_WP = 0x10000 };
#define X86_CR0_PG BIT(31)
#define X86_CR4_PAE BIT(5)
#define X86_CR4_OSFXSR BIT(9)
#define X86_CR4_OSXMMEXCPT BIT(10)
#define X86_EFLAGS_FIXED BIT(1)
u64 rdmsr(u32 index); void wrmsr(u32 index, u64 value); bool is_intel(void);
ulong read_cr0(void), read_cr2(void), read_cr3(void), read_cr4(void), read_cr8(void), read_dr6(void), read_dr7(void);
void write_cr0(ulong v), write_cr2(ulong v), write_cr3(ulong v), write_cr4(ulong v), write_dr6(ulong v), write_dr7(ulong v);
u16 read_ds(void), read_es(void), read_fs(void), read_gs(void);
void write_ds(unsigned v), write_es(unsigned v), write_fs(unsigned v);
void lgdt(const struct descriptor_table_ptr *ptr); void flush_tlb(void);
""",
    "vm.h": """
typedef unsigned long pteval_t; typedef unsigned long pgd_t;
#define PAGE_SIZE 4096ul
#define PAGE_LEVEL 4
#define PT_PRESENT_MASK 1ull
#define PT_WRITABLE_MASK 2ull
#define PT_USER_MASK 4ull
#define PT_ACCESSED_MASK 0x20ull
#define PT_DIRTY_MASK 0x40ull
#define PT_GLOBAL_MASK 0x100ull
#define PT64_NX_MASK (1ull << 63)
void __setup_vm(void *opaque); void *current_page_table(void); void force_4k_page(void *addr);
pteval_t *install_pte(pgd_t *cr3, int level, void *virt, pteval_t pte, pteval_t *page);
pteval_t *get_pte_level(pgd_t *cr3, void *virt, int level); void *phys_to_virt(phys_addr_t phys);
""",
    "alloc_page.h": "int reserve_pages(phys_addr_t addr, size_t npages); void *phys_to_virt(phys_addr_t phys);\n",
    "list.h": "struct linked_list; struct linked_list *list_remove(struct linked_list *l);\n",
}
