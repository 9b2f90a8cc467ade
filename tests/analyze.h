/* SPDX-License-Identifier: MIT */
/*
 * For gcc -fanalyzer (tests/lint): the promise of base/fail.h, that these return
 * a negative number, which it cannot see and without which it follows paths that
 * do not exist.
 */
#include "base/fail.h"

#define ANALYZE_POSITIVE(err)                    \
	({                                       \
		int err_ = (err);                \
		if (err_ <= 0)                   \
			__builtin_unreachable(); \
		err_;                            \
	})
#define fail(err, ...) ((void)(fail)(err, __VA_ARGS__), -ANALYZE_POSITIVE(err))
#define fail_errno(err, ...) \
	((void)(fail_errno)(err, __VA_ARGS__), -ANALYZE_POSITIVE(err))
#define fail_in(err, name)                  \
	({                                  \
		int in_ = (err);            \
		(void)(fail_in)(in_, name); \
		in_;                        \
	})
