import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * A reader of a topic that has nothing of this project in it: Kafka's own consumer, Apache Avro, and
 * the registry asked for each schema by its id. Arguments: brokers, topic, registry URL. Writes one
 * line of JSON for each committed record. Longs are strings, floats are the bits in hex, bytes are
 * in hex: nothing is rounded on the way into JSON.
 */
public final class ReadTopic {
  private static final HttpClient http = HttpClient.newHttpClient();
  private static final Map<Integer, Schema> schemas = new HashMap<>();
  private static String registry;

  public static void main(String[] args) throws Exception {
    registry = args[2];
    Properties settings = new Properties();
    settings.put("bootstrap.servers", args[0]);
    settings.put("isolation.level", "read_committed");
    ByteArrayDeserializer bytes = new ByteArrayDeserializer();
    StringBuilder out = new StringBuilder();
    try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, bytes, bytes)) {
      List<TopicPartition> partitions = new ArrayList<>();
      consumer.partitionsFor(args[1]).forEach(
          (info) -> partitions.add(new TopicPartition(info.topic(), info.partition())));
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
      while (!isAtEnd(consumer, ends)) {
        for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
          out.append(line(record)).append('\n');
        }
      }
    }
    System.out.write(out.toString().getBytes(StandardCharsets.UTF_8));
    System.out.flush();
  }

  private static boolean isAtEnd(
      KafkaConsumer<byte[], byte[]> consumer, Map<TopicPartition, Long> ends) {
    return ends.entrySet().stream()
        .allMatch((end) -> consumer.position(end.getKey()) >= end.getValue());
  }

  private static String line(ConsumerRecord<byte[], byte[]> record) throws Exception {
    StringBuilder headers = new StringBuilder();
    for (Header header : record.headers()) {
      headers.append(headers.length() == 0 ? "" : ",").append(text(header.key())).append(':');
      headers.append(text(new String(header.value(), StandardCharsets.UTF_8)));
    }
    return "{\"partition\":" + record.partition() + ",\"offset\":" + record.offset()
        + ",\"key\":" + decoded(record.key()) + ",\"value\":" + decoded(record.value())
        + ",\"rawKey\":" + base64(record.key()) + ",\"rawValue\":" + base64(record.value())
        + ",\"headers\":{" + headers + "}}";
  }

  private static String base64(byte[] bytes) {
    return bytes == null ? "null" : text(Base64.getEncoder().encodeToString(bytes));
  }

  /** Framed as every Confluent client does it: a zero byte, the schema's id, Avro. */
  private static String decoded(byte[] bytes) throws Exception {
    if (bytes == null) return "null";
    ByteBuffer buffer = ByteBuffer.wrap(bytes);
    if (buffer.get() != 0) throw new IllegalStateException("not framed");
    Schema schema = schema(buffer.getInt());
    BinaryDecoder decoder = DecoderFactory.get().binaryDecoder(bytes, 5, bytes.length - 5, null);
    Object value = new GenericDatumReader<>(schema).read(null, decoder);
    if (!decoder.isEnd()) throw new IllegalStateException("bytes after " + schema.getFullName());
    return "{\"schema\":" + text(schema.getFullName()) + ",\"fields\":" + json(value) + "}";
  }

  private static Schema schema(int id) throws Exception {
    Schema known = schemas.get(id);
    if (known != null) return known;
    HttpRequest request = HttpRequest.newBuilder(URI.create(registry + "/schemas/ids/" + id)).build();
    String answer = http.send(request, HttpResponse.BodyHandlers.ofString()).body();
    // The answer is JSON; as a property of a schema, Avro’s own parser reads it.
    Schema holder = new Schema.Parser().parse(
        "{\"type\":\"record\",\"name\":\"Holder\",\"fields\":[],\"answer\":" + answer + "}");
    @SuppressWarnings("unchecked")
    Map<String, Object> properties = (Map<String, Object>) holder.getObjectProp("answer");
    Schema schema = new Schema.Parser().parse((String) properties.get("schema"));
    schemas.put(id, schema);
    return schema;
  }

  private static String json(Object value) {
    if (value == null) return "null";
    if (value instanceof GenericRecord record) {
      StringBuilder out = new StringBuilder("{");
      for (Schema.Field field : record.getSchema().getFields()) {
        out.append(out.length() == 1 ? "" : ",").append(text(field.name())).append(':');
        out.append(json(record.get(field.pos())));
      }
      return out.append('}').toString();
    }
    if (value instanceof List<?> list) {
      StringBuilder out = new StringBuilder("[");
      for (Object item : list) out.append(out.length() == 1 ? "" : ",").append(json(item));
      return out.append(']').toString();
    }
    if (value instanceof Map<?, ?> map) {
      StringBuilder out = new StringBuilder("{");
      for (Map.Entry<?, ?> entry : map.entrySet()) {
        out.append(out.length() == 1 ? "" : ",").append(text(entry.getKey().toString()));
        out.append(':').append(json(entry.getValue()));
      }
      return out.append('}').toString();
    }
    if (value instanceof Float number) return text(hex(Float.floatToRawIntBits(number), 8));
    if (value instanceof Double number) return text(hex(Double.doubleToRawLongBits(number), 16));
    if (value instanceof Long number) return text(number.toString());
    if (value instanceof ByteBuffer buffer) {
      StringBuilder out = new StringBuilder();
      while (buffer.hasRemaining()) out.append(hex(buffer.get() & 0xff, 2));
      return text(out.toString());
    }
    if (value instanceof GenericData.EnumSymbol || value instanceof CharSequence) {
      return text(value.toString());
    }
    return value.toString();
  }

  private static String hex(long value, int digits) {
    String all = String.format("%016x", value);
    return all.substring(all.length() - digits);
  }

  private static String text(String value) {
    StringBuilder out = new StringBuilder("\"");
    for (char letter : value.toCharArray()) {
      if (letter == '"' || letter == '\\') out.append('\\').append(letter);
      else if (letter < 0x20) out.append(String.format("\\u%04x", (int) letter));
      else out.append(letter);
    }
    return out.append('"').toString();
  }
}
