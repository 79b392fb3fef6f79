-- What creation is measured against. INSERT_WITHOUT_QUOTA and INSERT_WITH_ROOM stand for creation's own statement.

CREATE OR REPLACE FUNCTION bench_plain_v1(
    p_target bigint, p_batch uuid, p_offers jsonb,
    OUT created integer[], OUT duplicates integer[], OUT used bigint
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM offers_scrapingtarget WHERE id = p_target AND is_active;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no active target %', p_target USING ERRCODE = 'SH001';
    END IF;
    INSERT_WITHOUT_QUOTA
END $$;

-- p_look: read first how much fits. p_lock: lock the quota's row for that. Error BE001: less fits by now.
CREATE OR REPLACE FUNCTION bench_guard_v1(
    p_target bigint, p_batch uuid, p_offers jsonb, p_look boolean, p_lock boolean,
    OUT created integer[], OUT duplicates integer[], OUT used bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_quota bigint;
    v_limit bigint;
    v_used bigint;
    v_room bigint;
BEGIN
    PERFORM FROM offers_scrapingtarget WHERE id = p_target AND is_active;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no active target %', p_target USING ERRCODE = 'SH001';
    END IF;
    SELECT q.id, q.max_offers_per_period, q.used_offers_count INTO v_quota, v_limit, v_used
    FROM offers_offerquota q
    WHERE q.target_id = p_target AND q.period_start <= statement_timestamp()
      AND (q.period_end IS NULL OR statement_timestamp() < q.period_end)
    ORDER BY q.period_start DESC LIMIT 1;
    IF p_lock THEN
        SELECT q.used_offers_count INTO v_used FROM offers_offerquota q WHERE q.id = v_quota FOR NO KEY UPDATE;
    END IF;
    IF p_look THEN
        v_room := v_limit - v_used;
    END IF;
    INSERT_WITH_ROOM
    IF used > 0 AND v_quota IS NOT NULL THEN
        UPDATE offers_offerquota q SET used_offers_count = q.used_offers_count + bench_guard_v1.used
        WHERE q.id = v_quota AND (v_limit IS NULL OR q.used_offers_count + bench_guard_v1.used <= v_limit);
        IF NOT FOUND THEN
            RAISE EXCEPTION 'others were quicker' USING ERRCODE = 'BE001';
        END IF;
    END IF;
END $$;
