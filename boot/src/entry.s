# From the domain builder's jump to the first Rust line.
#
# State at entry (docs/misc/pvh.pandoc, arch-x86/hvm/start_info.h): 32-bit
# protected mode with flat segments, paging off, interrupts off,
# EBX = physical address of struct hvm_start_info. The loader has zeroed .bss.

# CR0 (AMD64 APM vol. 2, 3.1.1)
.set CR0_PE, 1 << 0             # protected mode
.set CR0_MP, 1 << 1             # monitor coprocessor: WAIT honours TS
.set CR0_ET, 1 << 4             # reads as one
.set CR0_NE, 1 << 5             # x87 errors are exceptions
.set CR0_WP, 1 << 16            # ring 0 obeys read-only pages: W^X is real
.set CR0_PG, 1 << 31            # paging
# CR4 (3.1.3)
.set CR4_PAE, 1 << 5
.set CR4_OSFXSR, 1 << 9         # SSE instructions allowed
.set CR4_OSXMMEXCPT, 1 << 10    # SSE errors are #XM, not #UD
# EFER (3.1.7)
.set MSR_EFER, 0xc0000080
.set EFER_LME, 1 << 8           # long mode, once paging is on
.set EFER_NXE, 1 << 11          # bit 63 of a page table entry means no-execute
# Page table entry bits (5.4.1). Accessed and dirty are preset so that the CPU
# never has to write a table back.
.set PTE_P, 1 << 0
.set PTE_W, 1 << 1
.set PTE_A, 1 << 5
.set PTE_D, 1 << 6
.set PTE_PS, 1 << 7
.set PTE_NX_HIGH, 1 << 31       # bit 63, seen from the high word
.set PTE_TABLE, PTE_P | PTE_W | PTE_A
.set PTE_RO, PTE_P | PTE_A
.set PTE_RW, PTE_P | PTE_W | PTE_A | PTE_D
.set NX, 1 << 63

.set XEN_ELFNOTE_PHYS32_ENTRY, 18

    .section .note.Xen, "a", @note
    .balign 4
    .long 4                     # name size
    .long 4                     # descriptor size
    .long XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_entry

    .section .text.entry, "ax"
    .code32
    .global pvh_entry
pvh_entry:
    cld
    rdtsc                       # the timeline starts here
    movl %eax, %esi
    movl %edx, %ebp             # entry TSC in EBP:ESI until long mode

# Fills the first 2 MiB page by page, because the image lies there and each of
# its sections has rights of its own. EDI walks the table, EAX the frames.
    movl $l1_first_2m, %edi
    xorl %eax, %eax

# A page that is absent. Nothing has zeroed the table.
    .macro absent
    movl $0, (%edi)
    movl $0, 4(%edi)
    addl $8, %edi
    addl $0x1000, %eax
    .endm

    .macro fill until, low, high
    movl \until, %ecx
    jmp 2f
1:  leal \low(%eax), %edx
    movl %edx, (%edi)
    movl \high, 4(%edi)
    addl $8, %edi
    addl $0x1000, %eax
2:  cmpl %ecx, %eax
    jb 1b
    .endm

    absent                      # page 0: a null pointer faults
    fill $__text_start, PTE_RW, $PTE_NX_HIGH
    fill $__text_end, PTE_RO, $0
    fill $__rodata_end, PTE_RO, $PTE_NX_HIGH
    fill $__stack_guard, PTE_RW, $PTE_NX_HIGH
    absent                      # the guard page under the stack
    fill $__exception_guard, PTE_RW, $PTE_NX_HIGH
    absent                      # and the one under the exceptions' stack
    fill $0x200000, PTE_RW, $PTE_NX_HIGH

enter_long_mode:
    movl $(CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT), %eax
    movl %eax, %cr4
    movl $l4_table, %eax
    movl %eax, %cr3
    movl $MSR_EFER, %ecx
    movl $(EFER_LME | EFER_NXE), %eax
    xorl %edx, %edx
    wrmsr
    movl $(CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE), %eax
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $8, $long_mode

    .code64
long_mode:
    movl $16, %eax
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl $__stack_top, %esp
    rdtsc
    shlq $32, %rdx
    orq %rax, %rdx              # third argument: TSC in long mode
    shlq $32, %rbp
    movl %esi, %esi
    orq %rbp, %rsi              # second argument: TSC at entry
    movl %ebx, %edi             # first argument: hvm_start_info
    xorl %ebp, %ebp             # ends the chain of frames
    call mayfly_main
    ud2                         # mayfly_main does not return

    .section .rodata.boot_gdt, "a"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 8: 64-bit code, accessed
    .quad 0x00cf93000000ffff    # 16: data, accessed
boot_gdt_pointer:
    .word boot_gdt_pointer - boot_gdt - 1
    .long boot_gdt

# An identity map of the first 4 GiB: a PVH guest's RAM from 0 up, and Xen's
# special pages under 0xff000000. Everything but the first 2 MiB is mapped by
# 2 MiB pages, read-write and never executable. (Xen has no page behind most of
# it: touching one that it did not give stops the domain.)
    .section .data.page_tables, "aw"
    .balign 4096
l4_table:
    .quad l3_table + PTE_TABLE
    .fill 511, 8, 0
l3_table:
    .quad l2_table + PTE_TABLE
    .quad l2_table + 0x1000 + PTE_TABLE
    .quad l2_table + 0x2000 + PTE_TABLE
    .quad l2_table + 0x3000 + PTE_TABLE
    .fill 508, 8, 0
l2_table:
    .quad l1_first_2m + PTE_TABLE
    .set frame, 0x200000
    .rept 4 * 512 - 1
    .quad frame + PTE_RW + PTE_PS + NX
    .set frame, frame + 0x200000
    .endr

    .section .scratch.page_tables, "aw", @nobits
    .balign 4096
l1_first_2m:
    .skip 4096

# One stub a vector: the CPU pushes an error code for some, zero stands in for
# the others, so that every frame has one shape (struct ExceptionFrame).
    .section .text.exceptions, "ax"
    .balign 16
    .global exception_stubs
exception_stubs:
    .set vector, 0
    .rept 32
    .balign 16
    .if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    pushq $0
    .endif
    pushq $vector
    jmp exception_common
    .set vector, vector + 1
    .endr

exception_common:
    pushq %r15
    pushq %r14
    pushq %r13
    pushq %r12
    pushq %r11
    pushq %r10
    pushq %r9
    pushq %r8
    pushq %rbp
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %rbx
    pushq %rax
    movq %rsp, %rdi
    andq $-16, %rsp             # the ABI's alignment at a call
    call mayfly_exception
    ud2

# Xen fills it when its address is written to the hypercall MSR. In text,
# because it is called; xen-sys names the symbol.
    .section .text.hypercall_page, "ax"
    .balign 4096
    .global HYPERCALL_PAGE
HYPERCALL_PAGE:
    .skip 4096, 0xcc
