# memcpy and its family: the compiler calls them and there is no libc.
# System V ABI: RDI, RSI, RDX in, RAX out. Short copies, which are most of
# them, take overlapping moves; long ones the string instructions.
#
# `function NAME` begins a global function. Who includes this file defines that
# macro: the guest with the names themselves, the host's test with others.

    .section .text.mem, "ax"

    .balign 16
    function memcpy
.Lmemcpy:
    movq %rdi, %rax
    cmpq $16, %rdx
    jae 2f
    cmpq $8, %rdx
    jae 1f
    cmpq $4, %rdx
    jae 0f
    testq %rdx, %rdx
    jz 9f
    movzbl (%rsi), %ecx                 # 1 to 3: first, middle, last
    movzbl -1(%rsi,%rdx), %r8d
    movq %rdx, %r9
    shrq $1, %r9
    movzbl (%rsi,%r9), %r10d
    movb %cl, (%rdi)
    movb %r10b, (%rdi,%r9)
    movb %r8b, -1(%rdi,%rdx)
9:  ret
0:  movl (%rsi), %ecx                   # 4 to 7
    movl -4(%rsi,%rdx), %r8d
    movl %ecx, (%rdi)
    movl %r8d, -4(%rdi,%rdx)
    ret
1:  movq (%rsi), %rcx                   # 8 to 15
    movq -8(%rsi,%rdx), %r8
    movq %rcx, (%rdi)
    movq %r8, -8(%rdi,%rdx)
    ret
2:  cmpq $32, %rdx
    ja 3f
    movups (%rsi), %xmm0                # 16 to 32
    movups -16(%rsi,%rdx), %xmm1
    movups %xmm0, (%rdi)
    movups %xmm1, -16(%rdi,%rdx)
    ret
3:  movups -16(%rsi,%rdx), %xmm1        # the last 16, stored last
    leaq -16(%rdi,%rdx), %r8
    cmpq $256, %rdx
    jae 5f
4:  movups (%rsi), %xmm0
    movups %xmm0, (%rdi)
    addq $16, %rsi
    addq $16, %rdi
    cmpq %r8, %rdi
    jb 4b
    movups %xmm1, (%r8)
    ret
5:  movq %rdx, %rcx
    shrq $3, %rcx
    rep movsq
    movups %xmm1, (%r8)
    ret

    .balign 16
    function memmove
    movq %rdi, %rax
    subq %rsi, %rax
    cmpq %rdx, %rax                     # unsigned: destination not inside the source
    jae .Lmemcpy
    movq %rdi, %rax
    movq %rdx, %rcx                     # backwards
    leaq -8(%rsi,%rdx), %rsi
    leaq -8(%rdi,%rdx), %rdi
    cmpq $8, %rcx
    jb 2f
1:  movq (%rsi), %r8
    movq %r8, (%rdi)
    subq $8, %rsi
    subq $8, %rdi
    subq $8, %rcx
    cmpq $8, %rcx
    jae 1b
2:  testq %rcx, %rcx
    jz 4f
3:  movzbl 7(%rsi), %r8d
    movb %r8b, 7(%rdi)
    decq %rsi
    decq %rdi
    decq %rcx
    jnz 3b
4:  ret

    .balign 16
    function memset
    movq %rdi, %r8
    movzbl %sil, %eax
    movabsq $0x0101010101010101, %rcx
    imulq %rcx, %rax
    cmpq $8, %rdx
    jb 1f
    movq %rax, -8(%rdi,%rdx)            # the last 8; the rest in whole words
    movq %rdx, %rcx
    shrq $3, %rcx
    rep stosq
    movq %r8, %rax
    ret
1:  movq %rdx, %rcx
    rep stosb
    movq %r8, %rax
    ret

    .balign 16
    function bcmp
    function memcmp
1:  cmpq $8, %rdx
    jb 2f
    movq (%rdi), %rax
    movq (%rsi), %rcx
    addq $8, %rdi
    addq $8, %rsi
    subq $8, %rdx
    cmpq %rcx, %rax
    je 1b
    bswapq %rax                         # the first byte that differs decides
    bswapq %rcx
    cmpq %rcx, %rax
    sbbl %eax, %eax
    orl $1, %eax
    ret
2:  testq %rdx, %rdx
    jz 4f
3:  movzbl (%rdi), %eax
    movzbl (%rsi), %ecx
    subl %ecx, %eax
    jne 5f
    incq %rdi
    incq %rsi
    decq %rdx
    jnz 3b
4:  xorl %eax, %eax
5:  ret
