-- The primitives, version 2. The tables, the errors and the rules of v1.sql hold here too.

-- quota_redis_record_v1 for what is recorded nearly always, the beginning of one range, in as little work as can be; the
-- rest is left to that. Returns p_used, so that it can stand in a query.
CREATE OR REPLACE FUNCTION quota_redis_record_v2(
    p_namespace text, p_quota bigint, p_active bigint, p_slots int8multirange, p_used bigint
) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF p_active = p_quota AND p_used BETWEEN 1 AND upper(p_slots) - lower(p_slots)
       AND p_slots = int8multirange(range_merge(p_slots)) THEN
        INSERT INTO quota_redis_ledger (namespace, quota_id, slots)
        VALUES (p_namespace, p_quota, int8range(lower(p_slots), lower(p_slots) + p_used))
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'a slot of quota % in % is taken', p_quota, p_slots USING ERRCODE = 'QS002';
        END IF;
    ELSE
        PERFORM quota_redis_record_v1(p_namespace, p_quota, p_active, p_slots, p_used);
    END IF;
    RETURN p_used;
END $$;
