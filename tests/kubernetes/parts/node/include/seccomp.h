/* What Go's binding needs to know of libseccomp 2.5, for machines that have the library (nearly
 * all: apt and systemd are linked with it) but not its headers: runc applies no seccomp profile
 * when it is built without. Names and numbers are those of the library's stable ABI; see
 * seccomp_init(3) and the manual pages that it refers to. */
#ifndef CAIRN_TEST_SECCOMP_H
#define CAIRN_TEST_SECCOMP_H

#include <elf.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stdint.h>

#define SCMP_VER_MAJOR 2
#define SCMP_VER_MINOR 5
#define SCMP_VER_MICRO 0

#define SCMP_ACT_KILL 0x00000000U
#define SCMP_ACT_TRAP 0x00030000U
#define SCMP_ACT_ERRNO(code) (0x00050000U | ((code) & 0xffffU))
#define SCMP_ACT_TRACE(code) (0x7ff00000U | ((code) & 0xffffU))
#define SCMP_ACT_ALLOW 0x7fff0000U

#define SCMP_ARCH_NATIVE 0
#define SCMP_ARCH_X86 AUDIT_ARCH_I386
#define SCMP_ARCH_X86_64 AUDIT_ARCH_X86_64
/* Unlike the kernel's, so that it differs from x86_64. */
#define SCMP_ARCH_X32 (EM_X86_64 | __AUDIT_ARCH_LE)
#define SCMP_ARCH_ARM AUDIT_ARCH_ARM
#define SCMP_ARCH_AARCH64 AUDIT_ARCH_AARCH64
#define SCMP_ARCH_MIPS AUDIT_ARCH_MIPS
#define SCMP_ARCH_MIPS64 AUDIT_ARCH_MIPS64
#define SCMP_ARCH_MIPS64N32 AUDIT_ARCH_MIPS64N32
#define SCMP_ARCH_MIPSEL AUDIT_ARCH_MIPSEL
#define SCMP_ARCH_MIPSEL64 AUDIT_ARCH_MIPSEL64
#define SCMP_ARCH_MIPSEL64N32 AUDIT_ARCH_MIPSEL64N32

enum scmp_filter_attr {
	SCMP_FLTATR_ACT_DEFAULT = 1,
	SCMP_FLTATR_ACT_BADARCH,
	SCMP_FLTATR_CTL_NNP,
	SCMP_FLTATR_CTL_TSYNC,
	SCMP_FLTATR_API_TSKIP,
	SCMP_FLTATR_CTL_LOG,
	SCMP_FLTATR_CTL_SSB,
	SCMP_FLTATR_CTL_OPTIMIZE,
	SCMP_FLTATR_API_SYSRAWRC,
};

enum scmp_compare {
	SCMP_CMP_NE = 1,
	SCMP_CMP_LT,
	SCMP_CMP_LE,
	SCMP_CMP_EQ,
	SCMP_CMP_GE,
	SCMP_CMP_GT,
	SCMP_CMP_MASKED_EQ,
};

struct scmp_arg_cmp {
	unsigned int arg;
	enum scmp_compare op;
	uint64_t datum_a;
	uint64_t datum_b;
};

struct scmp_version {
	unsigned int major, minor, micro;
};

typedef void *scmp_filter_ctx;

const struct scmp_version *seccomp_version(void);
scmp_filter_ctx seccomp_init(uint32_t action);
int seccomp_reset(scmp_filter_ctx filter, uint32_t action);
void seccomp_release(scmp_filter_ctx filter);
int seccomp_merge(scmp_filter_ctx into, scmp_filter_ctx from);
int seccomp_load(const scmp_filter_ctx filter);
uint32_t seccomp_arch_native(void);
int seccomp_arch_exist(const scmp_filter_ctx filter, uint32_t arch);
int seccomp_arch_add(scmp_filter_ctx filter, uint32_t arch);
int seccomp_arch_remove(scmp_filter_ctx filter, uint32_t arch);
int seccomp_attr_get(const scmp_filter_ctx filter, enum scmp_filter_attr name, uint32_t *value);
int seccomp_attr_set(scmp_filter_ctx filter, enum scmp_filter_attr name, uint32_t value);
char *seccomp_syscall_resolve_num_arch(uint32_t arch, int number);
int seccomp_syscall_resolve_name_arch(uint32_t arch, const char *name);
int seccomp_syscall_resolve_name(const char *name);
int seccomp_syscall_priority(scmp_filter_ctx filter, int number, uint8_t priority);
int seccomp_rule_add_array(scmp_filter_ctx filter, uint32_t action, int number, unsigned int count,
			   const struct scmp_arg_cmp *conditions);
int seccomp_rule_add_exact_array(scmp_filter_ctx filter, uint32_t action, int number,
				 unsigned int count, const struct scmp_arg_cmp *conditions);
int seccomp_export_pfc(const scmp_filter_ctx filter, int file);
int seccomp_export_bpf(const scmp_filter_ctx filter, int file);

#endif
