/* SPDX-License-Identifier: MIT */
/*
 * Big-endian and little-endian integers as types of their own: an on-disk structure is
 * made of these, and forgetting to convert one does not compile.
 */
#ifndef BASE_ENDIAN_H
#define BASE_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

typedef struct {
	uint16_t raw;
} be16;
typedef struct {
	uint32_t raw;
} be32;
typedef struct {
	uint64_t raw;
} be64;

static inline uint16_t be16_get(be16 v)
{
	return be16toh(v.raw);
}

static inline uint32_t be32_get(be32 v)
{
	return be32toh(v.raw);
}

static inline uint64_t be64_get(be64 v)
{
	return be64toh(v.raw);
}

typedef struct {
	uint16_t raw;
} le16;
typedef struct {
	uint32_t raw;
} le32;
typedef struct {
	uint64_t raw;
} le64;

static inline uint16_t le16_get(le16 v)
{
	return le16toh(v.raw);
}

static inline uint32_t le32_get(le32 v)
{
	return le32toh(v.raw);
}

static inline uint64_t le64_get(le64 v)
{
	return le64toh(v.raw);
}

static inline be16 be16_make(uint16_t v)
{
	return (be16){htobe16(v)};
}

static inline be32 be32_make(uint32_t v)
{
	return (be32){htobe32(v)};
}

static inline be64 be64_make(uint64_t v)
{
	return (be64){htobe64(v)};
}

/* The same at any address of a byte buffer, aligned or not. */
static inline uint16_t be16_at(const void *p)
{
	be16 v;

	memcpy(&v, p, sizeof(v));
	return be16_get(v);
}

static inline uint32_t be32_at(const void *p)
{
	be32 v;

	memcpy(&v, p, sizeof(v));
	return be32_get(v);
}

static inline uint64_t be64_at(const void *p)
{
	be64 v;

	memcpy(&v, p, sizeof(v));
	return be64_get(v);
}

static inline uint16_t le16_at(const void *p)
{
	le16 v;

	memcpy(&v, p, sizeof(v));
	return le16_get(v);
}

static inline uint32_t le32_at(const void *p)
{
	le32 v;

	memcpy(&v, p, sizeof(v));
	return le32_get(v);
}

static inline uint64_t le64_at(const void *p)
{
	le64 v;

	memcpy(&v, p, sizeof(v));
	return le64_get(v);
}

static inline void be32_put(void *p, uint32_t n)
{
	be32 v = be32_make(n);

	memcpy(p, &v, sizeof(v));
}

static inline void be64_put(void *p, uint64_t n)
{
	be64 v = be64_make(n);

	memcpy(p, &v, sizeof(v));
}

#endif
